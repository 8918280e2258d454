import fs from 'node:fs';
import { clone, Errors, fetch, push } from 'isomorphic-git';
import http from 'isomorphic-git/http/node';
import { defineThirdPartySuite } from './third-party-suite.js';
import type { ThirdPartyClient, Transport } from './third-party-suite.js';

function isomorphicGit(token: string): ThirdPartyClient {
  const remote = {
    fs,
    http,
    onAuth: () => ({ username: 'admin', password: token }),
    onAuthFailure: () => ({ cancel: true }),
  };
  return {
    clone: (url, dir) => clone({ ...remote, dir, url }),
    fetch: async (dir) => void (await fetch({ ...remote, dir, tags: true })),
    push: async (dir, refspec) => {
      const [, plus, source = '', target = ''] = /^(\+?)([^:]*):(.*)$/.exec(refspec) ?? [];
      const deletes = source === '' ? { delete: true } : { ref: source, force: plus === '+' };
      try {
        const { ok, refs } = await push({ ...remote, dir, remoteRef: target, ...deletes });
        return ok ? undefined : JSON.stringify(refs);
      } catch (error) {
        if (error instanceof Errors.PushRejectedError) return error.message;
        if (error instanceof Errors.GitPushError) return error.message;
        throw error;
      }
    },
  };
}

const overHttp: Transport = {
  name: 'HTTP',
  url: ({ server }, repository) => `${server.url}/${repository}`,
  connect: ({ token }) => isomorphicGit(token),
  intrude: () => Promise.resolve(isomorphicGit('wrong')),
};

// It has no SSH.
defineThirdPartySuite('isomorphic-git', [overHttp]);
