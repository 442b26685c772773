"""What stockpyle knows about SQLAlchemy."""
