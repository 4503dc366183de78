"""Labels to data sets that trainers read."""
