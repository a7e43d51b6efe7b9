"""What goes in and what comes out, validated; and text made safe for display."""
