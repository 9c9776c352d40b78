"""Gravity Spy's classes, splits and pictures (Zenodo 1486046, doi:10.1088/1361-6382/aa5cea)."""

CLASSES = (
    "1080Lines",
    "1400Ripples",
    "Air_Compressor",
    "Blip",
    "Chirp",
    "Extremely_Loud",
    "Helix",
    "Koi_Fish",
    "Light_Modulation",
    "Low_Frequency_Burst",
    "Low_Frequency_Lines",
    "No_Glitch",
    "None_of_the_Above",
    "Paired_Doves",
    "Power_Line",
    "Repeating_Blips",
    "Scattered_Light",
    "Scratchy",
    "Tomte",
    "Violin_Mode",
    "Wandering_Line",
    "Whistle",
)
SAMPLE_TYPES = ("train", "validation", "test")
VIEWS_S = (0.5, 1.0, 2.0, 4.0)
HEIGHT, WIDTH = 140, 170
SHAPE = (1, HEIGHT, WIDTH)
