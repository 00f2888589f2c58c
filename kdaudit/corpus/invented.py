"""Words, names and numbers that belong to nobody, for canaries and for the demo's records."""

from __future__ import annotations

AREA_CODES = ("202", "303", "404", "512", "617", "718", "808", "907")
"""North American area codes; in each of them 555-0100 to 555-0199 are kept for fiction and belong to nobody
(North American Numbering Plan Administrator, "555 NXX Assignment Guidelines")."""

GIVEN_NAMES = ("Fake", "Dummy", "Sample", "Mock", "Test", "Specimen", "Pretend", "Bogus")
FAMILY_NAMES = ("Nobody", "Example", "Person", "Fixture", "Entry", "Record", "Customer", "Name")
PLACES = ("Nowhere", "Exampleton", "Testville", "Sampleford", "Null Island")

_LISTED = """
acid acorn actor album alley amber angle ankle apple apron arena arrow atlas attic badge bacon
baker banjo barn basin basket beach bead beam bell belt bench berry birch bird blade blanket
boat bolt bone book boot border bottle bowl box branch brass bread brick bridge broom brush
bubble bucket button cabin cable cactus cake camel camera canal candle canoe canvas cape car card
carpet carrot cart castle cat cave cedar cello chain chair chalk cheese cherry chess chimney circle
clay cliff clock cloud clover coal coast coat cobra coin copper coral corn cotton couch cradle
crane crate crayon cream cricket crown cube curtain daisy dance desert desk diamond dish dock dog
dolphin door dragon drawer drum duck dust eagle earth echo egg elbow engine envelope fabric falcon
farm feather fence fern ferry fiddle field fig film finger flag flame flute fog forest fork
fossil fountain fox frame frog fruit garden garlic gate ginger giraffe glacier glass globe glove goat
goose grape grass gravel guitar hammer harbor harp hat hawk hazel helmet herb hill honey hook
horn horse hotel house iceberg igloo iris iron island ivory ivy jacket jar jazz jelly jewel
juice jungle kettle key kitchen kite kitten knee knife knot ladder lake lamp lantern laptop lawn
leaf lemon lens letter lever lily lime lion lizard lobster lock lotus lunch magnet mango map
maple marble market mask meadow medal melon metal mill mint mirror mitten moon moss motor mouse
"""
WORDS = tuple(_LISTED.split())
"""Common English nouns, 240 of them: 7.9 bits a word where they are drawn at random."""
