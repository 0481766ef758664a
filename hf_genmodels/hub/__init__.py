"""Publishing: the Hub folder, its card, its verification in a clean process, exports."""
