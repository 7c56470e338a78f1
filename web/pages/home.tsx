/** Home: where to go. */
import type { JSX } from "preact";
import type { BootData } from "../ui/boot.ts";
import { Icon } from "../ui/components/icon.tsx";
import type { IconName } from "../ui/icons/icon_names.ts";
import { PageShell } from "./page_shell.tsx";

export function HomePage({ user }: { user: BootData["user"] }): JSX.Element {
  return (
    <PageShell app="home" user={user}>
      <h1 class="page__title">Hello, {user.username}</h1>
      <p class="muted">Your address is {user.address}</p>
      <div class="tiles">
        <Tile href="/mail" icon="mail" title="Mail" text="Read, write and find your messages." />
        <Tile
          href="/drive"
          icon="folder"
          title="Drive"
          text="Keep files, look at them, play them."
        />
        <Tile
          href="/account"
          icon="user"
          title="Account"
          text="Password, sessions, app passwords, light and dark."
        />
        {user.admin && (
          <Tile
            href="/admin"
            icon="server"
            title="Admin"
            text="Nodes, tablets and what the store holds."
          />
        )}
      </div>
    </PageShell>
  );
}

function Tile(
  { href, icon, title, text }: { href: string; icon: IconName; title: string; text: string },
): JSX.Element {
  return (
    <a class="tile" href={href}>
      <span class="tile__icon">
        <Icon name={icon} size="large" />
      </span>
      <span class="tile__title">{title}</span>
      <span class="tile__text">{text}</span>
    </a>
  );
}
