"""Pictures of predictions beside votes: figures for papers, and a page that shows a whole run."""
