"""What people have on disk becomes one store."""
