"""What people read: tables and plots of evaluation rows."""
