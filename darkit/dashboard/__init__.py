"""The dashboard: every run of a home, live, beside the others. It reads run directories only and needs no torch.

``server.create_app(root)`` makes the application; ``serve`` keeps one running for a home.
"""
