"""The shipped models and the recipe that built them."""
