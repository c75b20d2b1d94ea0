"""Training of any network: stages, steps, losses and gradients, checkpoints, several processes.

loop: a run from beginning to end. progress: where it is. stages, settings: what it consists of. launch: what
belongs to the whole process. The families of networks are in `models.families`.
"""
