"""Reference data: scan geometry, engines that label it, quality control, sampling and campaigns."""
