"""What is counted for each visitor of an experiment, from the first slate that the visitor was served."""

UNIT_COLUMNS = {
    "exposures": "slates served under the experiment",
    "impressions": "times that an item of a slate served to the unit was seen (`view_item_list` that names the slate)",
    "clicks": "clicks on items of slates served to the unit (`select_item` that names the slate)",
    "views": "item pages opened (`view_item`)",
    "carts": "items put into the cart (`add_to_cart`)",
    "orders": "orders, from sources that can be trusted with money",
    "converted": "1 when there was an order, else 0",
    "revenue_minor": "what was paid, in minor units (cents)",
    "sessions": "sessions with at least one event or slate",
}
"""Columns of the unit table that metrics can be made of; each counts from the unit's first exposure on."""

PAGE_COLUMNS = {
    "page_exposures": "slates served to the unit at any placement",
    "page_impressions": "times that an item of any of these slates was seen",
    "page_clicks": "clicks on items of any of these slates",
}
"""What takes the place of exposures, impressions and clicks where an experiment names its placement."""
