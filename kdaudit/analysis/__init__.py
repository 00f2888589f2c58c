"""What results say: who inherited what, with which intervals; whether the gate passes; what leaks hold."""
