"""The dashboard: every run of a home, live, side by side. It reads run directories only and needs no torch.

``server.app.create_app(root)`` makes the application; ``server.serve`` keeps one running for a home.
"""
