"""EB-VLA Studio: simulator, control loop, recording and the web page."""
