"""What people look at: the curves, pictures and pages of runs and of the bench."""
