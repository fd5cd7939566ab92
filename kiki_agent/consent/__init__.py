"""Whether anything may be done with a person's data: consents, consent strings, requests of people about their data.

Personal keys live here in a file of their own, and so does the one place that turns a customer's id into the token all
other rooms use. No bid is decided here, no platform is called, and no row here says what a customer is worth.
"""
