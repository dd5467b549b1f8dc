#!/usr/bin/env bash
# pywa 4.5.0 never tells an application that a message has failed: it reads value.contacts[0] of every status.
#   - Meta's page "Business-scoped user IDs" has `contacts` in the webhooks of sent, delivered and read, and none in that of failed.
#   - The update is answered by 200, so that Meta does not repeat it, and a KeyError is logged. The handler is not called.
#   - The sync and the async client are alike. `@wa.on_raw_update` gets it.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q pywa==4.5.0
cat >"$folder/try.py" <<'PYTHON'
import asyncio
import json
import logging
import time

import pywa
import pywa_async

logging.disable()

def webhook(status: str, **more: object) -> bytes:
    step = {"id": "wamid.1", "status": status, "timestamp": "1795342000", "recipient_id": "15550001111"}
    errors = [{"code": 131053, "title": "Media upload error", "message": "Media upload error"}]
    if status == "failed":
        step["errors"] = errors
    metadata = {"display_phone_number": "15550002222", "phone_number_id": "1"}
    value = {"messaging_product": "whatsapp", "metadata": metadata, "statuses": [step], **more}
    entry = {"id": "2", "changes": [{"field": "messages", "value": value}]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()

contacts = [{"profile": {"name": "Anna"}, "wa_id": "15550001111", "user_id": "US.1349"}]
updates = {"delivered": webhook("delivered", contacts=contacts), "failed": webhook("failed")}
seen = []

def sync_handler(_, status):
    seen.append(status.status.value)

async def async_handler(_, status):
    seen.append(status.status.value)

async def main():
    for module, handler in ((pywa, sync_handler), (pywa_async, async_handler)):
        client = module.WhatsApp(phone_id="1", token="x", server=None, verify_token="x", validate_updates=False)
        client.on_message_status()(handler)
        for name, update in updates.items():
            seen.clear()
            response = client.webhook_update_handler(update)
            response = await response if asyncio.iscoroutine(response) else response
            for _ in range(20):
                await asyncio.sleep(0.05)  # handlers run in the background
            print(module.__name__, name, "answered", response[1], "handler called" if seen else "handler not called")

asyncio.run(main())
PYTHON
cat >"$folder/expected" <<'EXPECTED'
pywa delivered answered 200 handler called
pywa failed answered 200 handler not called
pywa_async delivered answered 200 handler called
pywa_async failed answered 200 handler not called
EXPECTED
"$folder/env/bin/python" "$folder/try.py" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
