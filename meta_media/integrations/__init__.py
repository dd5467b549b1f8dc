"""Other people's programs: what lies between the media and a bucket, a web framework or a trace."""
