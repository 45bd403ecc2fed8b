"""The status page: one HTML document, drawn on the server from what is known."""

from otel_queue.server.page.document import CONTENT_SECURITY_POLICY, status_page

__all__ = ["CONTENT_SECURITY_POLICY", "status_page"]
