import { adminOnly, repositoryAdmins, app, receiver } from './cells.js';
import type { Row } from './row.js';

/** Webhooks and their deliveries. */
export const webhookRows: readonly Row[] = [
  {
    desc: 'list webhooks of a repository',
    action: 'webhook.list',
    request: () => ['GET', `${app}/webhooks`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'add a webhook to a repository',
    action: 'webhook.add',
    request: () => ['POST', `${app}/webhooks`, receiver],
    expected: repositoryAdmins(201),
  },
  {
    desc: 'change a webhook of a repository',
    action: 'webhook.change',
    request: ({ webhook }) => ['PATCH', `${app}/webhooks/${webhook}`, { events: ['push'] }],
    expected: repositoryAdmins(200),
  },
  {
    desc: "change the secret of a repository's webhook",
    action: 'webhook.rotate-secret',
    request: ({ webhook }) => ['POST', `${app}/webhooks/${webhook}/secret`, {}],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'remove a webhook of a repository',
    action: 'webhook.remove',
    request: ({ webhook }) => ['DELETE', `${app}/webhooks/${webhook}`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'test a webhook of a repository',
    action: 'webhook.test',
    request: ({ webhook }) => ['POST', `${app}/webhooks/${webhook}/test`],
    expected: repositoryAdmins(201),
  },
  {
    desc: 'list deliveries of a repository',
    action: 'webhook.deliveries',
    request: ({ webhook }) => ['GET', `${app}/webhooks/${webhook}/deliveries`],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'show a delivery of a repository',
    action: 'webhook.delivery',
    request: ({ webhook, delivery }) => [
      'GET',
      `${app}/webhooks/${webhook}/deliveries/${delivery}`,
    ],
    expected: repositoryAdmins(200),
  },
  {
    desc: 'send a delivery of a repository again',
    action: 'webhook.redeliver',
    request: ({ webhook, delivery }) => [
      'POST',
      `${app}/webhooks/${webhook}/deliveries/${delivery}/redeliver`,
    ],
    expected: repositoryAdmins(200),
  },
  {
    desc: "remove the server's webhook by way of a repository",
    action: 'webhook.remove',
    request: ({ serverWebhook }) => ['DELETE', `${app}/webhooks/${serverWebhook}`],
    expected: repositoryAdmins(404),
  },
  {
    desc: "show the server's delivery by way of a repository",
    action: 'webhook.delivery',
    request: ({ serverWebhook, serverDelivery }) => [
      'GET',
      `${app}/webhooks/${serverWebhook}/deliveries/${serverDelivery}`,
    ],
    expected: repositoryAdmins(404),
  },
  {
    desc: 'list webhooks of the server',
    action: 'webhook.list',
    request: () => ['GET', '/webhooks'],
    expected: adminOnly(200),
  },
  {
    desc: 'add a webhook to the server',
    action: 'webhook.add',
    request: () => ['POST', '/webhooks', receiver],
    expected: adminOnly(201),
  },
  {
    desc: 'change a webhook of the server',
    action: 'webhook.change',
    request: ({ serverWebhook }) => ['PATCH', `/webhooks/${serverWebhook}`, { events: ['push'] }],
    expected: adminOnly(200),
  },
  {
    desc: "change the secret of the server's webhook",
    action: 'webhook.rotate-secret',
    request: ({ serverWebhook }) => ['POST', `/webhooks/${serverWebhook}/secret`, {}],
    expected: adminOnly(200),
  },
  {
    desc: 'remove a webhook of the server',
    action: 'webhook.remove',
    request: ({ serverWebhook }) => ['DELETE', `/webhooks/${serverWebhook}`],
    expected: adminOnly(200),
  },
  {
    desc: 'test a webhook of the server',
    action: 'webhook.test',
    request: ({ serverWebhook }) => ['POST', `/webhooks/${serverWebhook}/test`],
    expected: adminOnly(201),
  },
  {
    desc: 'list deliveries of the server',
    action: 'webhook.deliveries',
    request: ({ serverWebhook }) => ['GET', `/webhooks/${serverWebhook}/deliveries`],
    expected: adminOnly(200),
  },
  {
    desc: 'show a delivery of the server',
    action: 'webhook.delivery',
    request: ({ serverWebhook, serverDelivery }) => [
      'GET',
      `/webhooks/${serverWebhook}/deliveries/${serverDelivery}`,
    ],
    expected: adminOnly(200),
  },
  {
    desc: 'send a delivery of the server again',
    action: 'webhook.redeliver',
    request: ({ serverWebhook, serverDelivery }) => [
      'POST',
      `/webhooks/${serverWebhook}/deliveries/${serverDelivery}/redeliver`,
    ],
    expected: adminOnly(200),
  },
];
