"""What people look at: videos, contact sheets, reports."""
