"""What would spoil a training, looked for before it begins: stages from cheap to expensive."""
