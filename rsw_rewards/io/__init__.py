"""Reading and writing: paths, records in files and in memory, images, predictions beside their samples, the chat client."""
