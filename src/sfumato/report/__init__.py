"""What a person sees of results: tables for a terminal, figures, one offline HTML file."""
