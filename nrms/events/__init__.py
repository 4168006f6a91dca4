"""What readers saw and clicked, kept in the order in which it arrived, durable before it is
acknowledged.

`event` says what an event is and which ones are refused. `log` is the seam: an `EventLog` takes
events and gives them back by position, whoever keeps them. `sqlite_log` keeps them in a file beside
the service, `redis_log` in a Redis that several services share; `address` says which. `records` is
the form in which both keep an event, `group_commit` lets requests share a write, `refusals` are in
the same words whoever refuses.
"""
