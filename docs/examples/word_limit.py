"""A judge in ten lines: is the response as short as the prompt's metadata ask for?"""


def rate(messages, response, reference, metadata):
    """1 within `max_words`, 0 up to half as many more, -1 beyond; no rating where the prompt sets no limit."""
    limit, words = metadata.get("max_words"), len(response.split())
    if limit is None:
        return {"short": None}
    rating = 1 if words <= limit else 0 if words <= 1.5 * limit else -1
    return {"short": (rating, f"It has {words} words; at most {limit} were asked for.")}
