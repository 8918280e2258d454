import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { connect } from 'node:http2';
import { connect as connectSocket, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { test, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { until } from '../../backends/contract/testing/until.js';
import { pickPort } from '../../backends/contract/testing/ports.js';
import type { CertificateSource } from './certificate.js';
import { basic, ok, startListener } from './listener-fixture.js';

async function certificate(): Promise<CertificateSource> {
  const directory = await mkdtemp(path.join(tmpdir(), 'quorate-http2-'));
  const [cert, key] = ['cert.pem', 'key.pem'].map((name) => path.join(directory, name));
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  const words = `req -x509 -subj /CN=localhost -days 1 -keyout ${key} -out ${cert}`.split(' ');
  await promisify(execFile)('openssl', [...words, ...kind]);
  const current = { cert: await readFile(cert ?? ''), key: await readFile(key ?? '') };
  await rm(directory, { recursive: true });
  return { current, onChange: () => undefined };
}

/** A wire to a port, through which nothing passes any more when it is stalled. */
async function startWire(t: TestContext, port: number) {
  const sockets: Socket[] = [];
  let toClientBytes = 0;
  const server = createServer((near) => {
    const far = connectSocket(port, '127.0.0.1');
    sockets.push(near, far);
    for (const socket of [near, far]) socket.on('error', () => undefined);
    near.on('data', (bytes) => far.write(bytes)).on('close', () => far.destroy());
    far
      .on('close', () => near.destroy())
      .on('data', (bytes) => {
        toClientBytes += bytes.length;
        near.write(bytes);
      });
  });
  const own = await pickPort();
  server.listen(own, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return {
    port: own,
    toClientBytes: () => toClientBytes,
    stall: () => {
      for (const socket of sockets) socket.pause();
    },
  };
}

function* endless(): Generator<Buffer> {
  for (;;) yield Buffer.alloc(1_000_000);
}

/** As much as the protocol allows: only what connections hold on the way stops the server. */
const windowBytes = 2 ** 31 - 1;

test('a client of HTTP/2 that does not read its answer is dropped, with its connection', async (t) => {
  const fixture = await startListener({
    tls: await certificate(),
    limits: { idleTimeoutMs: 1_000, keepAliveTimeoutMs: 1_000 },
    async run(_input, output, { signal }) {
      await pipeline(Readable.from(endless()), output, { signal });
      return ok;
    },
  });
  t.after(() => fixture.close());
  const wire = await startWire(t, fixture.port);
  const session = connect(`https://127.0.0.1:${wire.port}`, {
    rejectUnauthorized: false,
    settings: { initialWindowSize: windowBytes },
  });
  session.on('error', () => undefined);
  session.once('connect', () => session.setLocalWindowSize(windowBytes));
  const stream = session.request({
    ':method': 'POST',
    ':path': '/a/git-upload-pack',
    ...basic('ann', 'good-token'),
    'content-type': 'application/x-git-upload-pack-request',
  });
  stream.on('error', () => undefined).resume();
  stream.end('0000');
  await until('the answer to come', () => wire.toClientBytes() > 5_000_000);
  wire.stall();
  await until('the connection to be gone', () => fixture.connections() === 0);
  await until('git to be ended', () => fixture.running() === 0);
  session.destroy();
});
