"""The leaderboard as one HTML file."""
