"""Reading and writing: paths, records, images, the chat client."""
