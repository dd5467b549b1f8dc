// Make one file with an npm package: `node packages.cjs PACKAGE FILE [OPTION ...]`.
"use strict";
const fs = require("fs");
const path = require("path");

const RATE = 48000;
const TONE = Float32Array.from({ length: RATE * 2 }, (_, index) => Math.sin(index * 0.05) * 0.3); // two seconds, mono
const PCM = Int16Array.from(TONE, (value) => value * 32767);
const BT709 = { primaries: "bt709", transfer: "bt709", matrix: "bt709", fullRange: false };

// Copy the tracks of an input into another container. Options are those of the output format, as JSON.
async function mediabunny(file, format, source, options = "{}") {
  const mb = require("mediabunny");
  const from = new mb.Input({ formats: mb.ALL_FORMATS, source: new mb.BufferSource(fs.readFileSync(source)) });
  const output = new mb.Output({ format: new mb[`${format}OutputFormat`](JSON.parse(options)), target: new mb.BufferTarget() });
  const conversion = await mb.Conversion.init({ input: from, output, showWarnings: false });
  if (!conversion.isValid || conversion.discardedTracks.length) throw new Error(JSON.stringify(conversion.discardedTracks.map((one) => one.reason)));
  await conversion.execute();
  fs.writeFileSync(file, Buffer.from(output.target.buffer));
}

// Read an input's packets with mediabunny, and hand them to a muxer.
async function remux(Muxer, Target, file, source, names, options) {
  const mb = require("mediabunny");
  const from = new mb.Input({ formats: mb.ALL_FORMATS, source: new mb.BufferSource(fs.readFileSync(source)) });
  const [video, sound] = [await from.getPrimaryVideoTrack(), await from.getPrimaryAudioTrack()];
  const setup = { target: new Target(), firstTimestampBehavior: "offset", ...options };
  if (video) setup.video = { codec: names[video.codec], width: video.displayWidth, height: video.displayHeight };
  if (sound) setup.audio = { codec: names[sound.codec], numberOfChannels: sound.numberOfChannels, sampleRate: sound.sampleRate };
  const muxer = new Muxer(setup);
  const chunks = [];
  for (const [track, add] of [[video, "addVideoChunkRaw"], [sound, "addAudioChunkRaw"]]) {
    if (!track) continue;
    const decoderConfig = { ...(await track.getDecoderConfig()), colorSpace: BT709 };
    for await (const packet of new mb.EncodedPacketSink(track).packets()) chunks.push([packet, add, { decoderConfig }]);
  }
  chunks.sort((one, other) => one[0].timestamp - other[0].timestamp);
  for (const [packet, add, meta] of chunks) {
    const times = [Math.max(packet.timestamp, 0) * 1e6, packet.duration * 1e6].slice(0, names.webm ? 1 : 2);
    muxer[add](packet.data, packet.type, ...times, meta);
  }
  muxer.finalize();
  fs.writeFileSync(file, Buffer.from(setup.target.buffer));
}

const MAKERS = {
  mediabunny,
  "mp4-muxer": (file, source, fastStart) => {
    const { Muxer, ArrayBufferTarget } = require("mp4-muxer");
    const names = { avc: "avc", hevc: "hevc", vp9: "vp9", av1: "av1", aac: "aac", opus: "opus" };
    return remux(Muxer, ArrayBufferTarget, file, source, names, { fastStart: fastStart === "false" ? false : fastStart });
  },
  "webm-muxer": (file, source, type = "webm") => {
    const { Muxer, ArrayBufferTarget } = require("webm-muxer");
    const names = { avc: "V_MPEG4/ISO/AVC", vp8: "V_VP8", vp9: "V_VP9", av1: "V_AV1", opus: "A_OPUS", vorbis: "A_VORBIS", aac: "A_AAC", webm: true };
    return remux(Muxer, ArrayBufferTarget, file, source, names, { type });
  },
  lamejs: async (file) => {
    const { Mp3Encoder } = await import(path.join(process.env.NODE_PATH, "@breezystack/lamejs/dist/lamejs.js"));
    const encoder = new Mp3Encoder(1, RATE, 64);
    const parts = [];
    for (let start = 0; start < PCM.length; start += 1152) parts.push(Buffer.from(encoder.encodeBuffer(PCM.subarray(start, start + 1152))));
    fs.writeFileSync(file, Buffer.concat([...parts, Buffer.from(encoder.flush())]));
  },
  "wasm-media-encoders": async (file, kind) => {
    const { createMp3Encoder, createOggEncoder } = require("wasm-media-encoders");
    const encoder = await (kind === "ogg" ? createOggEncoder() : createMp3Encoder());
    encoder.configure({ sampleRate: RATE, channels: 1 });
    const first = Buffer.from(encoder.encode([TONE]));
    fs.writeFileSync(file, Buffer.concat([first, Buffer.from(encoder.finalize())]));
  },
  "h264-mp4-encoder": async (file) => {
    const encoder = await require("h264-mp4-encoder").createH264MP4Encoder();
    Object.assign(encoder, { width: 128, height: 72 });
    encoder.initialize();
    for (let index = 0; index < 25; index++) encoder.addFrameRgba(new Uint8Array(128 * 72 * 4).fill(index * 9));
    encoder.finalize();
    fs.writeFileSync(file, Buffer.from(encoder.FS.readFile(encoder.outputFilename)));
    encoder.delete();
  },
  "node-id3": (file, source, size = "1000") => {
    const image = { mime: "image/png", type: { id: 3, name: "front cover" }, description: "", imageBuffer: Buffer.alloc(Number(size), 7) };
    fs.writeFileSync(file, require("node-id3").write({ title: "x", image }, fs.readFileSync(source)));
  },
  wavefile: (file, depth = "16") => {
    const wave = new (require("wavefile").WaveFile)();
    wave.fromScratch(1, RATE, "16", PCM);
    if (depth !== "16") wave[depth]();
    fs.writeFileSync(file, wave.toBuffer());
  },
  // What players of HLS make of transport streams.
  "mux.js": (file, source) => {
    const transmuxer = new (require("mux.js").mp4.Transmuxer)({ remux: true });
    const parts = [];
    transmuxer.on("data", (segment) => parts.push(Buffer.from(segment.initSegment), Buffer.from(segment.data)));
    transmuxer.push(new Uint8Array(fs.readFileSync(source)));
    transmuxer.flush();
    fs.writeFileSync(file, Buffer.concat(parts));
  },
  // GPAC's, which cuts a file into fragments.
  mp4box: (file, source) => {
    const box = require("mp4box").createFile();
    const parts = [];
    box.onReady = (info) => {
      info.tracks.forEach((track) => box.setSegmentOptions(track.id, null, { nbSamples: 20 }));
      const start = box.initializeSegmentation();
      for (const one of [start].flat()) parts.push(Buffer.from(one.buffer));
      box.start();
    };
    box.onSegment = (_id, _user, buffer) => parts.push(Buffer.from(buffer));
    const bytes = fs.readFileSync(source);
    const whole = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
    whole.fileStart = 0;
    box.appendBuffer(whole);
    box.flush();
    fs.writeFileSync(file, Buffer.concat(parts));
  },
  // The worker of the recorder that chat pages use, without a page.
  "opus-recorder": (file, channels = "1") =>
    new Promise((resolve, reject) => {
      const { Worker } = require("worker_threads");
      const script = require.resolve("opus-recorder/dist/encoderWorker.min.js");
      const shim = `const {parentPort} = require("worker_threads"); globalThis.self = globalThis; globalThis.location = {href: ""};
        globalThis.postMessage = (data) => parentPort.postMessage(data); globalThis.close = () => process.exit();
        globalThis.WorkerGlobalScope = class {}; globalThis.importScripts = () => {};
        parentPort.on("message", (data) => globalThis.onmessage({data}));
        require("vm").runInThisContext(require("fs").readFileSync(${JSON.stringify(script)}, "utf8"));`;
      const worker = new Worker(shim, { eval: true });
      const pages = [];
      worker.on("error", reject);
      worker.on("message", (data) => {
        if (data && data.message === "ready") {
          worker.postMessage({ command: "getHeaderPages" });
          for (let start = 0; start < TONE.length; start += 4096)
            worker.postMessage({ command: "encode", buffers: Array(Number(channels)).fill(TONE.slice(start, start + 4096)) });
          worker.postMessage({ command: "done" });
        } else if (data && data.message === "page") pages.push(Buffer.from(data.page));
        else if (data && data.message === "done") {
          fs.writeFileSync(file, Buffer.concat(pages));
          worker.terminate().then(resolve);
        }
      });
      worker.postMessage({ command: "init", encoderSampleRate: 48000, originalSampleRate: RATE, numberOfChannels: Number(channels), encoderApplication: 2049, encoderFrameSize: 20, maxFramesPerPage: 40, resampleQuality: 3, streamPages: false, bufferLength: 4096 });
    }),
};

const [name, ...options] = process.argv.slice(2);
Promise.resolve(MAKERS[name](...options)).then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
