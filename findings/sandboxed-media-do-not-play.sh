#!/usr/bin/env bash
# What Chromium shows in a tab of its own for a file that its server sends with `Content-Security-Policy: sandbox`, as
# servers do that have files of others. Chromium 147 of the package @sparticuz/chromium 153.0.0, driven by playwright-core 1.65.1.
#   - A sound does not play, nor does a video. The player asks for the file a second time, as the origin `null` and in the mode "cors", and
#     the server's own file is refused to it for want of Access-Control-Allow-Origin. `sandbox allow-scripts` changes nothing.
#   - A picture is shown: it is asked for once.
#   - With `sandbox allow-same-origin`, which allows no script, and with Access-Control-Allow-Origin, the file plays.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-save --ignore-scripts --prefix "$folder" @sparticuz/chromium@153.0.0 playwright-core@1.65.1
cat >try.cjs <<'JAVASCRIPT'
const fs = require('fs'), http = require('http'), zlib = require('zlib')
const { chromium } = require('playwright-core')

const sound = Buffer.alloc(44 + 8000)  // a second of silence: PCM, mono, 8 kHz, 8 bits
sound.write('RIFF', 0); sound.writeUInt32LE(36 + 8000, 4); sound.write('WAVEfmt ', 8); sound.writeUInt32LE(16, 16)
sound.writeUInt16LE(1, 20); sound.writeUInt16LE(1, 22); sound.writeUInt32LE(8000, 24); sound.writeUInt32LE(8000, 28)
sound.writeUInt16LE(1, 32); sound.writeUInt16LE(8, 34); sound.write('data', 36); sound.writeUInt32LE(8000, 40); sound.fill(128, 44)
const files = {
    'audio/wav': sound,
    'image/gif': Buffer.from('R0lGODlhAQABAIAAAP8AAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==', 'base64'),
}
let asked = []
const server = http.createServer((request, response) => {
    const { searchParams } = new URL(request.url, 'http://host')
    const type = searchParams.get('type')
    if (!type) return response.writeHead(404).end()
    asked.push(request.headers.origin ?? 'none')
    const headers = { 'Content-Type': type, 'Content-Length': files[type].length }
    if (searchParams.get('policy')) headers['Content-Security-Policy'] = searchParams.get('policy')
    if (searchParams.get('allowed')) headers['Access-Control-Allow-Origin'] = searchParams.get('allowed')
    response.writeHead(200, headers).end(files[type])
})
async function main() {
    const executablePath = `${__dirname}/chromium`
    fs.writeFileSync(executablePath, zlib.brotliDecompressSync(
        fs.readFileSync(`${__dirname}/node_modules/@sparticuz/chromium/bin/chromium.br`)), { mode: 0o755 })
    const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
    const cases = [['', ''], ['sandbox', ''], ['sandbox allow-scripts', ''], ['sandbox allow-same-origin', ''], ['sandbox', '*']]
    for (const type of Object.keys(files)) {
        for (const [policy, allowed] of cases) {
            asked = []
            const page = await browser.newPage()
            const query = new URLSearchParams({ type, policy, allowed })
            await page.goto(`http://127.0.0.1:${server.address().port}/?${query}`)
            const ends = page.waitForFunction(() => {
                const element = document.querySelector('video, audio, img')
                return element.complete ?? (element.readyState === 4 || element.networkState === HTMLMediaElement.NETWORK_NO_SOURCE)
            })
            await ends
            const plays = await page.evaluate(() => {
                const element = document.querySelector('video, audio, img')
                return (element.naturalWidth ?? element.duration) > 0
            })
            const given = [policy || 'no policy', allowed && 'with Access-Control-Allow-Origin'].filter(Boolean).join(' ')
            console.log(`${type}, ${given}: ${plays ? 'shown' : 'not shown'}, asked as ${asked.join(', ')}`)
            await page.close()
        }
    }
    await browser.close()
    server.close()
}
server.listen(0, '127.0.0.1', main)
JAVASCRIPT
cat >expected <<'EXPECTED'
audio/wav, no policy: shown, asked as none, none
audio/wav, sandbox: not shown, asked as none, null
audio/wav, sandbox allow-scripts: not shown, asked as none, null
audio/wav, sandbox allow-same-origin: shown, asked as none, none
audio/wav, sandbox with Access-Control-Allow-Origin: shown, asked as none, null
image/gif, no policy: shown, asked as none
image/gif, sandbox: shown, asked as none
image/gif, sandbox allow-scripts: shown, asked as none
image/gif, sandbox allow-same-origin: shown, asked as none
image/gif, sandbox with Access-Control-Allow-Origin: shown, asked as none
EXPECTED
node try.cjs | tee seen
diff expected seen
