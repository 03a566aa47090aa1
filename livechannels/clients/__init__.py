"""A browser's session, whatever the transport. Imports the layer and below; knows neither `push` nor `streams`."""
