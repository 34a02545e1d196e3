"""What training minimises: one file for each generation, each returning its terms by name."""
