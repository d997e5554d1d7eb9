"""Backbone, flow, likelihood and regressor."""
