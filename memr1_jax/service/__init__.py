"""Memory for applications: trained agents behind a memory interface, on one SQL database."""
