"""
What joins this library to others. A room that needs an extra is imported by its own name.

```
taskiq   a fleet of workers: uploads, downloads and deletes as tasks
worker   one of its processes
plain    results and errors as plain data
```
"""
