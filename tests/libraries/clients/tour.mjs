// node tour.mjs CLIENT FOLDER: does what the client can do with each file of the folder, and prints a line of JSON for each.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import { finished } from "node:stream/promises";

const [client, folder] = process.argv.slice(2);
const { ACCESS_TOKEN: token, PHONE_NUMBER_ID: number, NODE_MODULES: modules } = process.env;
const require = createRequire(join(modules, "x"));
const load = (name) => import(pathToFileURL(require.resolve(name)));
const to = "15550001111";
const types = {
  "photo.jpg": ["image", "image/jpeg"],
  "note.ogg": ["audio", "audio/ogg"],
  "clip.mp4": ["video", "video/mp4"],
  "report.pdf": ["document", "application/pdf"],
  "sticker.webp": ["sticker", "image/webp"],
};

const clients = {
  async "whatsapp-api-js"() {
    const { WhatsAppAPI } = await load("whatsapp-api-js");
    const messages = await load("whatsapp-api-js/messages");
    const api = new WhatsAppAPI({ token, appSecret: "unused", v: "v25.0" });
    const tell = (response) => {
      if (response.error) throw new Error(JSON.stringify(response.error));
      return response;
    };
    return {
      async upload(path, type) {
        const form = new FormData();
        form.set("file", new Blob([readFileSync(path)], { type }), basename(path));
        return tell(await api.uploadMedia(number, form)).id;
      },
      info: async (id) => tell(await api.retrieveMedia(id, number)).url,
      download: async (id, url) => Buffer.from(await (await api.fetchMedia(url)).arrayBuffer()),
      async send(id, kind) {
        const message = new messages[kind[0].toUpperCase() + kind.slice(1)](id, true);
        return tell(await api.sendMessage(number, to, message)).messages[0].id;
      },
      remove: async (id) => tell(await api.deleteMedia(id, number)).success,
    };
  },

  async "@kapso/whatsapp-cloud-api"() {
    const { WhatsAppClient } = await load("@kapso/whatsapp-cloud-api");
    const api = new WhatsAppClient({ accessToken: token });
    const phoneNumberId = number;
    return {
      async upload(path, type) {
        const file = new Blob([readFileSync(path)], { type });
        return (await api.media.upload({ phoneNumberId, type, file, fileName: basename(path) })).id;
      },
      info: async (mediaId) => (await api.media.get({ mediaId, phoneNumberId })).url,
      // Without `auth` it sends no token, and returns the 401's body as the media.
      download: async (mediaId) => Buffer.from(await api.media.download({ mediaId, auth: "always" })),
      async send(id, kind) {
        const name = "send" + kind[0].toUpperCase() + kind.slice(1);
        return (await api.messages[name]({ phoneNumberId, to, [kind]: { id } })).messages[0].id;
      },
      remove: async (mediaId) => (await api.media.delete({ mediaId, phoneNumberId })).success,
    };
  },

  async "whatsapp-business"() {
    const { WABAClient } = (await load("whatsapp-business")).default;
    const api = new WABAClient({ apiToken: token, phoneId: number, accountId: "1" });
    return {
      upload: async (file, type) => (await api.uploadMedia({ file, type })).id,
      info: async (id) => (await api.getMedia(id)).url,
      async download(id, url) {
        const path = join(folder, "..", id);
        await finished(await api.downloadMedia(url, path));
        return readFileSync(path);
      },
      send: async (id, type) => (await api.sendMessage({ to, type, [type]: { id } })).messages[0].id,
      remove: async (id) => (await api.deleteMedia(id)).success,
    };
  },
};

const api = await clients[client]();
for (const name of readdirSync(folder)) {
  const [kind, type] = types[name];
  const seen = { name };
  try {
    seen.id = await api.upload(join(folder, name), type);
    seen.url = await api.info(seen.id);
    seen.sha256 = createHash("sha256").update(await api.download(seen.id, seen.url)).digest("hex");
    seen.message = await api.send(seen.id, kind);
    seen.removed = await api.remove(seen.id);
    seen.gone = await api.info(seen.id).then(() => "found", (error) => String(error?.message ?? error));
  } catch (error) {
    seen.error = String(error?.message ?? error) + " " + JSON.stringify(error);
  }
  console.log(JSON.stringify(seen));
}
