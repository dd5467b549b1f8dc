"""
The emulator's page: what is stored, what happens, and buttons that do what customers and Meta do.

```
app     the routes: the files of the page, events, media, and what the buttons do
guard   which requests are refused
```

The page itself is `index.html`, `page.css` and `page.js`, as they are: there is no build step.
"""
