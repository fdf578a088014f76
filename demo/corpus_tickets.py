"""Support tickets: a problem of one category, said with one urgency, between greetings and signatures.

The category is what the problem is about. The urgency is what the writer says about time: "high" when work is blocked
or an answer is needed at once, "low" when the writer says that there is no rush, "medium" otherwise (nothing said, or
some day this week).
"""

from corpus_common import HELDOUT, TRAIN, check_templates, expand, fresh_word, phrases, some_amount, some_code, some_name
from corpus_common import MONTHS

CATEGORIES = ("billing", "account", "technical", "shipping", "returns", "feature")
URGENCIES = ("high", "medium", "low")

PROBLEMS = {
    TRAIN: {
        "billing": phrases(
            """
            [after|since] [the upgrade|the {plan} upgrade|cancelling] [I pay|we pay|I was billed] {amount} [too much|more than agreed|a month]
            [a refund of the double charge|a corrected invoice|a credit note] for {month} [is missing|is needed|would be right]
            [two|three|several] [payments|charges|debits] of {amount} [left|were taken from] my [bank account|card] [on the same day|in {month}|]
            [who|can somebody] [explains|explain] [why the bill is so high|the price on my invoice|this debit of {amount}|the tax on our bill]
            my [paypal|credit card|debit card] [payment|transaction] [fails|was refused|does not go through] [at the checkout|for the {plan} plan|]
            [invoice|bill|receipt] {code} [has|carries|shows] [the old address|a wrong amount|the wrong company name|no tax number]
            [we paid|I paid|our bank paid] {amount} [for|against] [bill|invoice] {code} [but|yet|and] [you sent a reminder|it is still open|it shows as unpaid]
            the [yearly|annual|monthly] [fee|price|subscription] [is|was] [debited|charged|collected] [too early|although I cancelled|twice]
            [I was|We were|I have been|Our company was] charged [twice|two times|three times] for [the {plan} plan|my subscription|one month|the same bill]
            the [invoice|bill] for {month} [shows|says|has] {amount} instead of {amount2}
            my [credit card|card|debit card|bank card] was [declined|refused|rejected] when I tried to pay for [the {plan} plan|my bill|the subscription]
            why did [my bill|the price of my subscription|our monthly fee|the invoice] go up [this month|in {month}|by {amount}]
            please [update|change|correct] the [VAT number|tax number|billing address|company name] on our [invoice|invoices|bill]
            I need a [receipt|copy of the invoice|payment confirmation] for the payment of {amount}
            a payment of {amount} [appears|shows up] on my [bank statement|card statement] that I do not recognise
            the [discount|discount code|coupon|promo code] was not [applied|taken off] on my [bill|invoice|payment]
            [I want|We would like] to [switch|change] from monthly to [annual|yearly] billing
            our [credit card|card] expires in {month} and I [must|want to|need to] [change|replace] the payment method
            the [bank transfer|payment|direct debit] for invoice {code} was [sent|made] but it is still marked as [unpaid|open]
            I [cancelled|ended] the {plan} plan in {month} but [I am|you are] still [being charged|charging me]
            the tax on invoice {code} is [wrong|calculated wrongly|too high]
            you [took|debited|withdrew] {amount} from my [bank account|card] [twice|by mistake|without reason]
            can you [explain|tell me] [the fee|the charge|the extra cost] of {amount} on [my last bill|invoice {code}]
            [our|the] subscription [renewed|was renewed] and [billed|charged] at the wrong price
            we [pay|are paying] for ten seats but [the invoice lists|are billed for] twelve
            where can I [download|find|see] [my invoices|our past invoices|the bill for {month}]
            the payment page [takes|accepts] only credit cards, can we pay by [bank transfer|invoice|direct debit]
            [there is|I see] an unknown [charge|fee|debit] of {amount} on my [invoice|statement]
            [I see|we found|there is|there was] [one charge|three charges|a second charge] [for|of] [{amount}|the {plan} plan] on [my|our] [bank account|bank statement|card]
            [we|I|our tax office] [need|needs|want] [the receipts|a receipt|receipts|invoices] [of|for] [all payments|each payment|the last year|{month}]
            the [coupon|voucher|gift code|promo code] for the {plan} plan [had no effect|changed nothing] [on the price|on my bill|]
            [bill|invoice] {code} [lists|names|shows] [a wrong|another] [company|tax number|address], [please correct it|can you change it]
            [overcharged|double charge|wrong amount] on [my account statement|invoice {code}|the {month} bill]
            """
        ),
        "account": phrases(
            """
            [the|my] [password|login|two factor code|security question] [is not|was not|is never] [accepted|recognised] [on the login page|since {month}|]
            [a|our] [new colleague|new employee|trainee], {name}, needs [an account|a login|access to the team]
            [since|after] [changing my password|the password change|my new phone] I can [no longer|not] [log in|sign in|reach my account]
            [is it|would it be] possible to [change|edit] [my user name|my login email|the name in my profile]
            [an unknown person|a hacker|somebody else] [uses|used|has] [my account|my password|my login]
            [deactivate|delete|close] [the account|the login|the profile] of [{name}|user {word}|my old company], please
            the [confirmation|verification|activation] [mail|email|link|code] for my [account|profile|registration] [is missing|did not reach me|expired]
            [who|how] can [I|we] [make|turn] {name} [into|] an [admin|owner|administrator] of [the workspace|the team|our account]
            my [profile|account] [shows|has] the wrong [name|email|phone number] [and I can not change it|]
            [too many|five|three] [login attempts|wrong passwords] and now my [user|account|profile] is [blocked|locked]
            I [forgot|lost|can not remember] my password and the reset [email|mail|link] [never arrives|does not come|is not sent]
            I [can not|cannot|can't|am unable to] [log in|sign in|get into my account] [with my password|since this morning|any more]
            my [account|profile|user] [is|was|has been] [locked|blocked|suspended] after [three|too many] [wrong attempts|failed logins]
            the [two factor|verification|security] code [is never sent|does not arrive|is rejected|is not accepted]
            please change the email address of my [account|profile|login] to {word}@example.com
            I want to [delete|close|remove] my [account|profile|user account] [and all my data|]
            how do I [add|invite] a new [user|colleague|team member] to [our account|the workspace|the team]
            my [username|user name|display name] is [spelled wrong|misspelled|wrong], can you [change|correct] it to {word}
            I [have a new phone|lost my phone] and can not [confirm|approve] the login [code|request]
            [somebody|someone|a stranger] [logged in|signed in] to my account from [another country|an unknown device]
            {name} left the company, please [remove|disable|deactivate] [his|her|the] [user|login|access]
            the [login|sign in] page says my [password|user name|email] is [wrong|invalid|unknown]
            single sign on [does not accept|rejects|refuses] my [company login|work email|user]
            I [need|want] [admin rights|owner rights|permission to edit] for my [user|profile|account]
            my colleague {name} [has no access to|can not open|is not allowed into] our [workspace|team account|shared folder]
            I [registered|signed up] with the wrong email [address|] and [can not confirm|never got the confirmation of] my account
            please [merge|join|combine] my two [accounts|profiles|logins]
            the link to reset my password [has expired|is expired|does not work|is invalid]
            I was [logged out|signed out] and now my password [is not accepted|is rejected|no longer works]
            [transfer|move|hand over] the ownership of [the workspace|our account] to {name}
            {name} [has left us|is no longer with us|has a new job], [please|] [block|remove|close] [this|the] [login|user|account]
            [we want|I have to|it is time] to [invite|add] [our|a] [new colleague|new trainee|assistant] {name} to the [workspace|company account]
            [I have|I own|there are] [two|three|double] [logins|profiles|users] [and need only one|, can you merge them]
            I [do not get|did not get|still wait for] the [code|security code|login code] [when I log in|for the login|on my phone]
            [password reset|account locked|login not possible|sign in refused] for user {word}
            """
        ),
        "technical": phrases(
            """
            [after|since] [the update|installing version {num}|a restart] the [program|app|editor] [shows an error|crashes|does not open files|is frozen]
            [uploading|exporting|saving|importing|printing] [a report|a file|photos|the table] [fails|ends|stops|always fails] [with an error|with error {num}|halfway]
            [your|the] [website|web app|api|server] [is down|does not answer|answers with 500|times out] [for hours|for us|again|]
            [all|my] [pages|screens|reports|charts] [stay empty|are blank|load slowly|take minutes to load]
            [the filter|the search|the timer|the total] in the [{word} table|report|calendar] [is wrong|shows wrong numbers|finds nothing]
            [I lost|we lost|there is no trace of] [my work|our data|all notes] after [a crash|the restart|the update]
            the [desktop|mobile|web] [app|version|program] [freezes|hangs|is stuck] when I [scroll|type|click|search]
            the [{word} plugin|driver|setup|update] [refuses to|will not|does not] [install|start|load]
            [our|the] [backup|sync|export] [is|has been] [stuck|frozen|at {num} percent] [for hours|since {month}|]
            the [app|program|software|desktop app] [crashes|closes|freezes|hangs] [every time|whenever|each time] I open [a file|the {word} page|the settings]
            I [get|see|receive] [error|error code|error message] {num} when I [save|upload|export|import] [a file|my work|a report]
            the [page|dashboard|website|screen] [does not load|stays blank|is blank|is white|loads forever]
            [the api|the server|your endpoint] [returns|answers with|gives] [error|status|code] [500|502|503|504] [on every request|since {month}|]
            the [sync|synchronisation|backup] [fails|stops|is stuck] [at {num} percent|halfway|after the update]
            since the [last update|new version|latest release] [the search|the editor|the calendar|the chart] [is broken|does not work|shows nothing]
            the [export|import|upload|download] [button|function] [does nothing|fails|gives an error|never finishes]
            [everything is|the app is|the pages are] [very|extremely|so] slow [since yesterday|today|after the update]
            there is a bug in [the report|the calendar|the table|the {word} module], [the totals are wrong|rows are missing|it shows old data]
            the [mobile app|phone app|tablet app] [will not start|does not start|crashes at start] on my [phone|tablet|new device]
            [notifications|reminders|messages] [are not shown|stopped working|come hours too late] [on my phone|in the app|]
            the [plugin|extension|driver|module] [can not be installed|fails to install|is not compatible] [on my computer|with version {num}|]
            our [database|server|integration] [lost the connection|keeps disconnecting|times out] [every few minutes|since the update|]
            [images|photos|videos|files] [are not displayed|appear broken|do not load] in [the editor|the browser|the app]
            the [installation|setup|update] [stops|fails|ends] with [error|code] {num}
            I [found|noticed|discovered] a bug: [the timer|the counter|the filter|the sort button] [resets itself|shows wrong numbers|does nothing]
            the screen [flickers|freezes|goes black] [when I scroll|when I type|after a minute]
            the [browser|app] [shows|displays] a timeout [error|message] [when I open the {word} page|all the time]
            data [disappears|is lost|is gone] after [saving|closing|restarting] [the app|the program|the file]
            the [printer|scanner|camera] [is not recognised|is not detected|does not connect] by [the software|your program]
            [my|our|all the] [notes|work of today|files|entries] [vanished|are gone|are lost] [after|since] [a crash|an update|restarting the app]
            [after|since] [the installation of|I installed] version {num} [the editor|the program|the app] [closes|crashes|freezes] [when I open|with] [a file|a table|a chart]
            your [api|server|endpoint|backend] has [been down|returned errors|answered {num}] [to all calls|since {month}|all day]
            [crash|bug|error {num}|blank screen|timeout] in [the app|the {word} module|version {num}]
            """
        ),
        "shipping": phrases(
            """
            [the|my] [parcel|box|delivery|package] for {name} [is at|went to|was left at] the wrong [house|flat|street|address]
            [where is|what happened to] [my order|order {code}|my parcel|the package|our delivery]
            [according to|if I believe] [the tracking|the courier|the carrier] [it|the parcel] was [delivered|handed over] [but|yet] [it is not here|nobody has it]
            [could|can|would] [the driver|the courier|you] [deliver|bring] [the parcel|order {code}] [in the evening|next week|to my office]
            [customs|the depot|the border] [holds|keeps|has] [my parcel|the shipment|package {code}]
            [how much is|do you offer|I would pay for] [express|faster|overnight] [shipping|delivery] [to my country|for order {code}|]
            order {code} [should|was to] [arrive|be here|be delivered] [last week|on Monday|days ago] [but|and] [there is no parcel|it is not here|I am still waiting]
            [one|half|a part] of [the delivery|my parcels|our shipment] [is missing|did not come|has not arrived]
            [I moved|I have moved|We moved], so [deliver|ship|send] order {code} to [the|my|our] new address
            [tell me|I need to know] the [delivery|shipping] [time|cost|date] [to|for] [my city|an island|order {code}]
            my [package|parcel|order|delivery] {code} [has not arrived|did not arrive|never arrived|is late]
            the tracking [number|page|link] [does not update|shows nothing|has not changed|says pending] for [my parcel|order {code}|days]
            the [courier|driver|carrier|delivery man] [left|delivered|dropped] the [parcel|package|box] at the wrong [address|house|door]
            [when will|when does] [my order|order {code}|the parcel|my package] [ship|be shipped|leave the warehouse|be delivered]
            please [change|update|correct] the delivery address of order {code}
            the [parcel|package|shipment] is [stuck|held|waiting] [in customs|at the depot|at the border]
            [the tracking says|the status says|your site says] delivered but [I have no parcel|nothing is here|I received nothing]
            can the [delivery|parcel|courier] [come|be delivered] on [Saturday|another day|Monday morning]
            only [one|two] of [three|four] [boxes|parcels|packages] [arrived|was delivered|came]
            how long does [shipping|delivery] to [another country|my city|an island] take
            my order {code} was [shipped|sent] to my old address
            the [courier|driver] did not [ring|knock|wait] and took the [parcel|package] back to the depot
            [I want|I would like] to [collect|pick up] the [parcel|package|delivery] [myself|at the shop|at the depot]
            the [estimated|expected|promised] delivery date of order {code} has passed
            [is|was] my [order|parcel|package] already [shipped|dispatched|sent out]
            the [shipment|delivery] to {name} [was lost|got lost|is lost|is missing] on the way
            can you [upgrade|change] my order to [express|faster|next day] [shipping|delivery]
            the carrier [can not find|does not know] the tracking number {code}
            my neighbour should [receive|accept] the [parcel|package|delivery] [while I am away|instead of me]
            why is [shipping|delivery] of order {code} [delayed|taking so long|postponed]
            [for days|for a week|since Monday] the tracking [link|number|page] [of my parcel|of order {code}|] [says|shows|has said] [pending|the same place|nothing new]
            [the status|the tracking status] of [my parcel|order {code}|our delivery] [has been|has stayed|is still] [pending|unknown] [for a week|since Monday|]
            [is|would] [overnight|faster|weekend] delivery [be possible|available|an option] [for order {code}|to my city|]
            [late delivery|lost parcel|tracking problem|missing package] for order {code}
            """
        ),
        "returns": phrases(
            """
            [the|my] {word} [came|was delivered|arrived] with a [crack|scratch|dent|hole], [I want|please send] [my money back|a new one|a replacement]
            [how|where] [do|can] I [get|print|find] [a return label|the return form|the label to send it back]
            [the shoes|the trousers|the gloves|the shirts] are too [small|large|tight|wide], I [need|want] [another size|to exchange them]
            [you have|you received] [the returned goods|my return|the jacket back] [but|yet] [I have no refund|the refund has not come]
            [take|please take] the [lamp|{word}|chair] back [and|,] [refund me|send a replacement|give me my money back]
            [is|are] [a broken kettle|my headphones|a defective drill|the {word}] [still under|covered by] warranty
            [I mean|I intend|I plan] to send [an unopened box|the lamp|the gift|the {word}] back [unused|unopened|]
            [a leg|a wheel|one part|the handle] of the [table|bed|{word}] from order {code} is broken [and must be replaced|, replace it please]
            [the replacement|the new {word}|the exchanged item] is [faulty|defective|damaged] [too|again], [I want a refund|money back please]
            [I want|I would like|We want] to [return|send back] [the shoes|the lamp|my order|the jacket|the {word}] [because it is too small|that I bought|]
            the [chair|phone|mug|table|{word}] arrived [broken|damaged|cracked|scratched] and I want [a refund|my money back|a replacement]
            please send me a return [label|form|slip] for order {code}
            I [returned|sent back] the [item|goods|jacket|{word}] [two|three] weeks ago and the refund is [missing|not here|still open]
            can I [exchange|swap] the [shirt|shoes|coat|{word}] for a [bigger|smaller|larger|different] size
            you sent me the wrong [item|product|colour|model], I [want to|would like to] [exchange|return|swap] it
            how [long|many days] do I have to [return|send back] [an item|a product|something]
            the [lamp|kettle|drill|{word}] stopped working after [a week|two days], is it [under warranty|covered by the warranty]
            I [changed my mind|do not need it any more] and want to return [order {code}|the order|it unopened]
            [when will|when do] I get my money back for the [returned|sent back] [item|goods|{word}]
            the [sofa|desk|bag|{word}] is [defective|faulty|not as described], I [ask for|want|request] a refund
            do I [have to|need to] pay for [sending the goods back|the return|the return postage]
            I [ask for|need|would like] a replacement for the [broken|damaged|faulty] [glass|cup|screen|{word}]
            the refund for [the returned item|my return|order {code}] [was too low|is not complete|is {amount} short]
            [one|a] [part|piece|leg|button] of the [table|toy|jacket|{word}] is [missing|broken], please [replace it|send a new one|take it back]
            can I return a [gift|present] without [the receipt|a receipt|the box]
            the colour of the [dress|curtain|{word}] is [not like|different from] the picture and I want to [send it back|return it]
            your [return|refund] form [asks for|wants] a number that I do not have
            I [lost|never received] the return label for the [shoes|blanket|{word}]
            the replacement [is|that you sent is|arrived] [broken|damaged|faulty] [too|again|as well]
            [does|is] the warranty [cover|valid for] [a lamp|a phone|a {word}|my kettle] that [broke|failed|stopped working] [after a year|last week|]
            [the refund|my refund|the money] of {amount} for [the goods|the jacket|the {word}] that [I returned|I sent back|you have back] [has not come|is late|is not here]
            [the|your] {word} [has|arrived with] a [crack|scratch|hole], [I ask for a refund|give me my money back|I want to return it]
            [refund request|return of goods|exchange of size|damaged item] for order {code}
            """
        ),
        "feature": phrases(
            """
            [have you|did you ever] [thought|think] [about|of] [a dark mode|supporting {word}|a calendar view|voice notes]
            [an option|a setting|a way] to [group|sort|pin|hide] [entries|notes|lists|columns] [by colour|by date|] would be [great|welcome|handy]
            [my|our] [suggestion|wish|idea|proposal] for [you|the next release|a future version]: [a {word} view|more shortcuts|a weekly mail]
            [let|please let] users [schedule|share|colour|sort] [reports|lists|notes], [that would be great|it would help us|please]
            [would|will|could] you [support|offer|add] [more languages|{word} files|an offline mode|shortcuts] [in the future|one day|in the next version|]
            [I|we] [wish there was|would love|dream of] [an integration|a link] with [{word}|our mail program|our {word} system]
            [something|a thing|a feature] [that I miss|I would like|we would use] is [a timeline|tags|drag and drop|a {word} mode]
            it would [help us|be nice|be useful] [if|when] [the list|reports|the table] could be [sorted|printed|filtered] [by date|by {word}|]
            [it would be great if|it would be nice if|I wish] [the app|your product|the editor] [had|supported|offered] [dark mode|a {word} view|keyboard shortcuts|an offline mode]
            please [add|consider adding|think about adding] [support for|an option for|a button for] [{word} files|dark mode|dark theme|shared folders]
            [could you|can you] [add|build|offer] [an integration|a connection] with [{word}|our calendar|our chat tool]
            [feature request|suggestion|idea|proposal]: [let us|allow users to] [sort|group|filter|tag] [the list|reports|entries] by [{word}|date|colour]
            I have [an idea|a suggestion] for [the next version|your app|the dashboard]: [a {word} chart|a weekly summary|drag and drop]
            will there be a [version|translation] in [Spanish|Polish|{word}]
            [is|are] [dark mode|shared lists|a {word} widget|custom fields] [planned|on the roadmap|coming]
            we [miss|would love|would love to have] [an option|a way|a setting] to [schedule|print|bookmark|colour] [reports|entries|notes]
            [my team|our team|I] would [love|like] to see [a map view|custom themes|a {word} template] in [a future version|the app]
            [why not|how about] [adding|offering] [a dark theme|voice notes|a {word} filter|larger fonts]
            do you [plan|intend] to [support|offer] [{word}|a linux version|an offline mode|more languages]
            a [button|shortcut|setting] to [duplicate|archive|pin] [tasks|notes|entries] would [help us a lot|be useful|be very handy]
            I [suggest|propose|recommend] [a new option|an improvement]: [colour labels|a {word} list|a quick menu]
            [vote|please count my vote] for [dark mode|the {word} feature|an undo button]
            your product [lacks|should have|needs] [a dark theme|templates|a {word} mode|a calendar view]
            it [should|could] be possible to [rename|group|pin] [columns|tabs|folders], [please add that|that would be useful]
            [an improvement|a wish] for the [roadmap|next release]: [more colours|a {word} panel|larger icons]
            we [would pay more for|would welcome] [a {word} add-on|an api for reports|a mobile version]
            [please|kindly] [plan|include|offer|consider] [{word} files|{word} support|support of {word}|files of type {word}] [in a later version|in the next release|some day|]
            [opening|reading|importing] {word} files [is not possible yet, please add it|would be a good addition|is what I miss]
            [a thing|the one thing] [I miss|that we miss] is [the chance|an option] to [pin|colour|group] [notes|lists|mails]
            [new feature|feature wish|enhancement|improvement idea]: [{word} support|a timeline|multiple windows]
            """
        ),
    },
    HELDOUT: {
        "billing": phrases(
            """
            there are two charges of {amount} for the {plan} plan on my card
            invoice {code} lists the wrong tax number, could you correct it
            your system refused my credit card while I was paying the {month} bill
            we need receipts for every payment since {month}
            my monthly bill went from {amount} to {amount2} and nobody told me why
            a coupon code for the {plan} plan did not lower the price on my invoice
            I paid invoice {code} by bank transfer, yet it still shows as unpaid
            after I cancelled the subscription another {amount} was debited from my card
            could our company pay yearly instead of monthly
            the billing address printed on invoice {code} is out of date
            who can explain the extra fee on our last invoice
            """
        ),
        "account": phrases(
            """
            the password reset email for {word}@example.com is not reaching me
            after three failed logins my user is now blocked
            our new colleague {name} needs to be invited to the team account
            I never receive the verification code when I sign in
            kindly close my profile and delete my data
            an unknown device signed in to my account last night
            my login no longer works, it says the password is invalid
            the email address in my profile is wrong and I can not edit it
            {name} does not work here any more, disable that login please
            who can give my user admin rights in the workspace
            I have two accounts and want them merged into one
            """
        ),
        "technical": phrases(
            """
            after installing version {num} the app crashes as soon as I open a report
            uploading a file always ends with error {num}
            your api has answered 503 to every call since {month}
            the dashboard remains blank in my browser
            I think I found a bug, the filter in the {word} table shows wrong numbers
            our backup has been stuck at {num} percent
            photos no longer load in the editor since the update
            the desktop program freezes when I scroll through the calendar
            all pages load very slowly and often end in a timeout
            the {word} plugin refuses to install and gives an error code
            my work is gone after restarting the software
            """
        ),
        "shipping": phrases(
            """
            order {code} was promised for last week and the parcel is still not here
            my tracking link has said pending for days
            a courier left the box for {name} at the wrong house
            could you deliver parcel {code} on another day
            customs is holding the shipment {code} at the border
            according to the tracking page the package was delivered, but I never got it
            what is the delivery time to my city
            please send order {code} to my new address, it is not shipped yet
            two parcels of my delivery are missing
            is express delivery possible for order {code}
            the driver took my package back to the depot without ringing
            """
        ),
        "returns": phrases(
            """
            the {word} came with a crack and I would like my money back
            how do I get a return label for the jacket in order {code}
            these shoes are too large, I want to exchange them for a smaller size
            my refund has not come although you received the returned goods
            you delivered the wrong colour, please take the {word} back and send a replacement
            is a drill that stopped working after a month still under warranty
            I would like to send the lamp back unopened
            the table from order {code} has a broken leg and needs to be replaced
            may I return a present if I have no receipt
            a refund of {amount} is still missing for the item that I sent back
            the faulty kettle was replaced by one that is faulty too, I want a refund
            """
        ),
        "feature": phrases(
            """
            have you thought about adding a dark theme to the app
            an option to group entries by colour would be very useful
            my suggestion for the next release is a {word} view
            we would love an integration with our {word} calendar
            are keyboard shortcuts on your roadmap
            please consider support for {word} files in a future version
            a feature that I miss is the possibility to pin notes
            I wish there were an offline mode in the mobile version
            idea for your team: let users schedule reports
            would you offer more languages, for example {word}
            it would help us if the list could be sorted by date, please add this option
            """
        ),
    },
}

URGENCY_PHRASES = {
    TRAIN: {
        "high": phrases(
            """
            [Nobody|No one|None of us] [here|in the team|in our company] can [work|go on|do anything] [until this is fixed|right now|].
            [We need help|I need help|Help us] [now|at once|urgently|this very hour].
            [This|It] [must|has to] be [fixed|solved|answered|done] [today|now|immediately|within hours].
            This is [urgent|very urgent|extremely urgent|critical|an emergency].
            [Please|Kindly] [help|answer|fix this|reply|act] [immediately|right now|at once|right away|as soon as possible|asap].
            [Our whole team|Our entire office|Everybody here|All of us] [is|are] [blocked|stuck|unable to work] [because of this|until this is solved|].
            We are losing [money|customers|sales|orders] every [hour|minute|day].
            [I need|We need] [this|an answer|a solution|it] [today|within the hour|in the next hour|by tonight|before noon].
            [Our production|The production system|Our shop] is down.
            [The deadline|My deadline|Our deadline] is [today|tonight|in two hours|tomorrow morning].
            [Every minute|Each hour] counts.
            [URGENT!|ASAP please!|Emergency!|Urgent, urgent!]
            [I can not wait|This can not wait|We can not wait] [any longer|until tomorrow|].
            [It is critical|It is very important] that [this is solved|you answer|I get it] [today|now|immediately].
            [Drop everything|Top priority|Highest priority], please.
            I [have a flight|have an exam|leave the country|present to a client] [in a few hours|tonight|tomorrow morning], so [hurry|please be quick].
            """
        ),
        "medium": phrases(
            """
            [I would be glad|We would be happy] about [a reply|an answer|some help] [this week|soon|in the next days].
            [Thank you|Thanks] for [looking into it|checking|your support|your time].
            What [should I do|can be done|do you advise]?
            Please [look into it|check it|get back to me] [this week|in the next days|by Friday|in a few days].
            I would like [this|it] to be [solved|sorted out|done] [this week|soon|by the end of the week].
            [An answer|A reply] [this week|in a day or two|by Thursday] would be [good|fine|appreciated].
            [Please let me know|Tell me] what to do.
            [Could you|Can you] [have a look|help me|check]?
            [Thanks for your help|I hope you can help|I look forward to your answer].
            It is [annoying|a bit annoying] but I [can work|manage] for a [day or two|few days].
            """
        ),
        "low": phrases(
            """
            [A few weeks|Some months|Several months|A long wait] [are|is|would be] [fine|okay|no problem] [for us|for me|].
            [It may take|This may take|Take] [a few weeks|months|as long as needed], [that is fine|I can wait|it is okay].
            [Answer|Reply|Do it] [when|whenever] you [like|find time|are less busy|have a free moment].
            [No need to|You do not have to|Do not] [rush|hurry|answer quickly].
            [If it takes|Even if it takes] [weeks|a year|some time], [I do not mind|no problem|we can wait].
            [There is|It's|This is] no [rush|hurry] [at all|].
            [Whenever|When] you [have time|have a moment|find the time|get around to it] [is fine|].
            [This is|It is] not [urgent|important|pressing] [at all|].
            [I am|We are] just [curious|asking|wondering].
            [Take your time|No need to hurry|Please take all the time you need].
            [It can wait|This can wait] [until next month|for weeks|a while|as long as you like].
            [Just|Only] a [minor|small|tiny] [thing|matter|detail] [for when you are free|for a quiet day|].
            [Low priority|Lowest priority] [for us|on our side|].
            [Any time|Some time] [this year|next month|in the coming months] is [fine|good enough].
            [No stress|Nothing urgent|Not pressing|No hurry here].
            [We can easily live|I can happily live] with it [for now|for a long time].
            """
        ),
    },
    HELDOUT: {
        "high": phrases(
            """
            We need help right now, this is an emergency.
            Nobody in our office can work until this is solved.
            This must be solved today, we are losing sales.
            It is urgent, answer me as soon as possible!
            I can not wait, my deadline is tonight.
            Please act immediately, it is critical for us.
            Top priority for us, every hour counts.
            """
        ),
        "medium": phrases(
            """
            I would be glad about a reply by the end of the week.
            Could you check this in the next days?
            Let me know what I should do.
            I hope that you can sort this out this week.
            Thank you for having a look.
            """
        ),
        "low": phrases(
            """
            No need to rush, it can wait until next month.
            Answer whenever you find a moment, it is not urgent.
            I was just wondering, so take your time.
            It is only a small detail and there is no hurry.
            For us this has low priority.
            If it takes a few months, that is fine.
            """
        ),
    },
}

GREETINGS = {
    TRAIN: phrases(
        """
        Hi,
        Hello,
        Hi team,
        Hey team,
        Dear support,
        Hello there,
        Good morning,
        Good evening,
        Good day,
        A good day to you,
        Hey,
        Greetings,
        To whom it may concern,
        Hi all,
        Hi everybody,
        Hi support,
        Hello everyone,
        Hello colleagues,
        Dear all,
        Dear colleagues,
        Dear helpers,
        Dear Sir or Madam,
        Dear customer service,
        """
    ),
    HELDOUT: phrases("Hello support team,\nGood afternoon,\nDear team,\nHi folks,"),
}
CLOSINGS = {
    TRAIN: phrases(
        """
        Thanks, {name}
        Thanks a lot, {name}
        Thanks in advance, {name}
        Regards, {name}
        Thank you.
        Thank you, {name}
        Best, {name}
        Best regards, {name}
        Best wishes, {name}
        All the best, {name}
        Thanks!
        Cheers, {name}
        Kind regards
        Warm regards, {name}
        With best wishes, {name}
        With many greetings, {name}
        Yours truly, {name}
        Yours faithfully, {name}
        Faithfully, {name}
        Greetings from {name}
        {name}
        """
    ),
    HELDOUT: phrases("Many thanks, {name}\nYours, {name}\nWith kind regards, {name}\nSincerely, {name}"),
}
DETAILS = {
    TRAIN: phrases(
        """
        I am a customer since 20{num2}.
        My customer number is {num}.
        I use [the {plan} plan|a laptop|a phone|the web version].
        [I already asked a colleague|I read the help pages|I tried twice|I called last week] [but it did not help|without success|].
        [It is my second message|I wrote before].
        We are a small {word} company.
        You can [call|reach] me at {num}{num2}.
        I [searched|looked in|read] [the forum|your manual|the documentation|the guide|your answers] [before|already|but found nothing|and am no wiser].
        [We buy|We have bought|My family has bought|I have ordered] [from you|here] [for|since] [many months|ten years|20{num2}].
        [Our|The] [contract|account|member|reference] [number|id] [is|reads] {num}.
        [I work|We work|I am writing] [with|from|for] [{word}|a school|a small office|an agency].
        [My colleague|{name}|A friend] [told me to write|gave me this address|had the same question] [to you|].
        [I am on|We have|Our team has|My contract is] the {plan} [plan|package|tariff].
        [I am new here|I am no expert|I hope this is the right place|I attach a picture|The details are below].
        [First I looked|Before this I looked|I have looked] [at|into|through] [the help page|your answers|the questions of others].
        """
    ),
    HELDOUT: phrases(
        """
        My company has been with you for years.
        Our customer id is {num}.
        I looked through your help centre first.
        We are on the {plan} plan.
        """
    ),
}
INSTRUCTIONS = phrases(
    """
    Classify this support ticket. Answer with its category and urgency.
    What are the category and the urgency of this ticket?
    Read the support ticket and give its category and urgency.
    Sort this ticket: category and urgency.
    """
)
PLANS = ("basic", "pro", "team", "business", "premium", "starter", "family", "gold")


def _sentence(text):
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."


def _slots(rng, split):
    amount, amount2 = some_amount(rng)[0], some_amount(rng)[0]
    sign = rng.choice(["$", "", "EUR "])
    return {
        "plan": rng.choice(PLANS),
        "month": rng.choice(MONTHS),
        "amount": sign + amount,
        "amount2": sign + amount2,
        "code": some_code(rng, ["ORD", "INV", "PO", "T"]),
        "num": str(rng.randint(10, 99999)),
        "num2": str(rng.randint(10, 25)),
        "word": fresh_word(rng),
        "name": some_name(rng, split),
    }


def make_ticket(rng, split, category=None, urgency=None):
    """One ticket with its answer; the parts come in a random order in training, as in a mail in the held-out set."""
    category = category or rng.choice(CATEGORIES)
    urgency = urgency or rng.choice(URGENCIES)
    slots = _slots(rng, split)
    body = [_sentence(expand(rng, rng.choice(PROBLEMS[split][category]), slots))]
    if split == TRAIN and rng.random() < 0.25:
        body.append(_sentence(expand(rng, rng.choice(PROBLEMS[split][category]), _slots(rng, split))))
    if urgency != "medium" or rng.random() < (0.5 if split == TRAIN else 0.6):
        place = rng.choice([0, len(body), len(body)])
        body.insert(place, expand(rng, rng.choice(URGENCY_PHRASES[split][urgency]), slots))
    if rng.random() < 0.4:
        body.insert(rng.randint(0, len(body)), expand(rng, rng.choice(DETAILS[split]), slots))
        if split == TRAIN and rng.random() < 0.2:
            body.insert(rng.randint(0, len(body)), expand(rng, rng.choice(DETAILS[split]), slots))
    if rng.random() < 0.6:
        body.insert(0, rng.choice(GREETINGS[split]))
    if rng.random() < 0.5:
        body.append(expand(rng, rng.choice(CLOSINGS[split]), slots))
    ticket = " ".join(body)
    if split == TRAIN and rng.random() < 0.1:
        ticket = rng.choice([ticket.lower(), ticket.upper() if len(ticket) < 90 else ticket.lower()])
    instruction = INSTRUCTIONS[0] if rng.random() < 0.6 else rng.choice(INSTRUCTIONS)
    return f"{instruction}\n\nTicket: {ticket}", f"category: {category}\nurgency: {urgency}"


def check_tickets():
    for category in CATEGORIES:
        check_templates(f"tickets, {category}", PROBLEMS[TRAIN][category], PROBLEMS[HELDOUT][category])
    for urgency in URGENCIES:
        check_templates(f"urgency, {urgency}", URGENCY_PHRASES[TRAIN][urgency], URGENCY_PHRASES[HELDOUT][urgency])
    check_templates("greetings", GREETINGS[TRAIN], GREETINGS[HELDOUT])
    check_templates("closings", CLOSINGS[TRAIN], CLOSINGS[HELDOUT])
    check_templates("details", DETAILS[TRAIN], DETAILS[HELDOUT])
