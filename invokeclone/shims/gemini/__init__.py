"""The two image methods of Google's Gemini API: `:predict` (Imagen) and `:generateContent` (Gemini)."""
