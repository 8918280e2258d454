import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { pickPort } from '../backends/contract/testing/ports.js';
import { exportJWK, generateKeyPair, type JWK } from 'jose';

export type KeyPair = Awaited<ReturnType<typeof generateKeyPair>>;

/** An OpenID Connect issuer on loopback: serves its configuration and its keys, as CI services do. */
export class Issuer {
  readonly url: string;
  readonly keys: JWK[] = [];
  #fetches = 0;
  readonly #server: Server;

  private constructor(listening: Server) {
    this.#server = listening;
    const address = listening.address();
    assert.ok(address !== null && typeof address === 'object');
    this.url = `http://127.0.0.1:${address.port}`;
    listening.on('request', (request, response) => {
      if (request.url === '/.well-known/openid-configuration') {
        response.end(JSON.stringify({ issuer: this.url, jwks_uri: `${this.url}/keys` }));
      } else if (request.url === '/keys') {
        this.#fetches += 1;
        response.end(JSON.stringify({ keys: this.keys }));
      } else if (request.url === '/endless') {
        const more = (): void => {
          if (!response.destroyed) response.write(' '.repeat(64 * 1024), () => setImmediate(more));
        };
        more();
      } else {
        response.writeHead(404).end();
      }
    });
  }

  static async open(): Promise<Issuer> {
    const listening = createServer();
    // Nobody else's when it is closed: tests ask for an issuer that is gone.
    listening.listen(await pickPort(), '127.0.0.1');
    await once(listening, 'listening');
    return new Issuer(listening);
  }

  /** How often the keys were fetched. */
  get fetches(): number {
    return this.#fetches;
  }

  async addKey(kid: string, algorithm: string): Promise<KeyPair> {
    const pair = await generateKeyPair(algorithm, { extractable: true });
    this.keys.push({ ...(await exportJWK(pair.publicKey)), kid, alg: algorithm });
    return pair;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
