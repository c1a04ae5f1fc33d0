/** The page: a sign-in form, and behind it one desk of panels for whoever is signed in. */

import { Auth, type User } from "../client";
import { openDesk } from "./desk";
import { byId } from "./dom";
import { setUpSignIn } from "./sign-in";

const auth = new Auth();

function show(user: User | null): void {
  byId("sign-in").hidden = user !== null;
  byId("desk").hidden = user === null;
  if (user) openDesk(auth, user);
  else byId("login-user").focus();
}

setUpSignIn(auth);
show(auth.user);
let opened = auth.user !== null;
auth.on("change", (user) => {
  // One desk for each page load: no panel can keep anything of the user before.
  if (opened) return location.reload();
  opened = true;
  show(user);
});
