"""What is pushed from outside becomes frames. Imports the layer and below; knows neither `clients` nor `streams`."""
