"""The demo page: `comparison` is what it shows, `fragments` and `style` how it looks, `page` what happens on it,
`serving` who may reach it, `space` how it becomes a Space of the Hub. Only `page` and `serving` need the extra `demo`.
"""
