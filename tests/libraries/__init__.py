"""Other people's libraries: what they put into our users' hands, uploaded, and where they want a download to go."""
