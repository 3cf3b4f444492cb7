"""The shield in the seams of other trainers: one small module each. None is imported before somebody asks for it."""
