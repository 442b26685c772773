"""What plugs stockpyle into other libraries."""
