import { Git } from 'node-git-server';

const [root = '', port = ''] = process.argv.slice(2);
const server = new Git(root, { autoCreate: true });
server.on('push', (push) => push.accept());
server.on('fetch', (fetch) => fetch.accept());
server.listen(Number(port), { type: 'http' });
