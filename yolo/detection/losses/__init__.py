"""What training minimises: one file for each generation."""
