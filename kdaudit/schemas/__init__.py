"""The JSON files that kdaudit writes, as versioned types."""
